-- When a generation was last in use: a roll-back returns to the one that was used last.
ALTER TABLE {millrace}.projection ADD COLUMN retired_at timestamptz;
CREATE UNIQUE INDEX projection_building ON {millrace}.projection (name) WHERE state = 'building';
