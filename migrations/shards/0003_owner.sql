-- The process that set the fence of this epoch, as a random number; 0: none did. Of two processes with the same epoch, only the first one
-- may write.
ALTER TABLE ownership ADD COLUMN owner BIGINT UNSIGNED NOT NULL DEFAULT 0;
