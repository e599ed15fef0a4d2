-- What content the node acknowledged as its applied revision: a number alone says nothing after a database was restored.

ALTER TABLE nodes ADD COLUMN applied_content TEXT NOT NULL DEFAULT '';
