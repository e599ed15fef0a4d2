-- How bad an alert was that somebody resolved: what becomes worse after that is told again. Of what was resolved before this
-- was known, nothing is.
ALTER TABLE alert_handled ADD COLUMN severity TEXT NOT NULL DEFAULT 'critical';
