-- Who a user is to the management plane: a VPN user, or an admin who may log in. An account without a password cannot log in.

ALTER TABLE users ADD COLUMN role TEXT NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin'));
ALTER TABLE users ADD COLUMN phone TEXT;
ALTER TABLE users ADD COLUMN password_hash TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX users_phone ON users (phone);
CREATE INDEX users_role ON users (role);
