-- Who may write to this shard's counter: the worker whose epoch stands here, or a later one. One row. Partition i of the workers is shard i.
CREATE TABLE ownership (
  only_row TINYINT UNSIGNED NOT NULL DEFAULT 1,
  epoch    BIGINT UNSIGNED  NOT NULL,
  -- The workers' work until events arrive.
  counter  BIGINT UNSIGNED  NOT NULL,
  PRIMARY KEY (only_row),
  CHECK (only_row = 1)
) ENGINE = InnoDB;

INSERT INTO ownership (epoch, counter) VALUES (0, 0);
