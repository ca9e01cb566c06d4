-- One logical shard: the users whose hash falls here and what they did. Ids are bytes, compared as bytes:
-- a text collation would call "a" and "a " the same user.
CREATE TABLE users (
  user_id       VARBINARY(64) NOT NULL,
  created_at_ms BIGINT        NOT NULL,
  -- How many events the log holds; warm-up takes the most active users first.
  events        INT UNSIGNED  NOT NULL DEFAULT 0,
  PRIMARY KEY (user_id),
  KEY by_activity (events)
) ENGINE = InnoDB;

-- The key is the event itself, so writing it twice changes nothing, and a user's log is one range of the clustered index.
CREATE TABLE behaviour (
  user_id VARBINARY(64)    NOT NULL,
  at_ms   BIGINT           NOT NULL,
  item_id VARBINARY(64)    NOT NULL,
  kind    TINYINT UNSIGNED NOT NULL,
  weight  FLOAT            NOT NULL,
  PRIMARY KEY (user_id, at_ms, item_id, kind)
) ENGINE = InnoDB;
