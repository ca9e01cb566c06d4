-- Events through Kafka. Partition i of the topic is shard i.
ALTER TABLE ownership
  -- Offset of the first message that is not written. It changes in the transaction that writes the messages before it.
  ADD COLUMN next_offset BIGINT UNSIGNED NOT NULL DEFAULT 0,
  -- The arrival number of an event is this plus its offset. After the topic was created anew, its offsets begin at 0 again:
  -- SET arrival_base = arrival_base + next_offset, next_offset = 0
  ADD COLUMN arrival_base BIGINT UNSIGNED NOT NULL DEFAULT 1;

-- Order of arrival in the shard; 0: written without Kafka.
ALTER TABLE behaviour
  ADD COLUMN arrival BIGINT UNSIGNED NOT NULL DEFAULT 0,
  ADD KEY by_arrival (arrival);

-- What the ranking needs of a user's log, folded by a worker. A user without a row has no event from Kafka yet.
CREATE TABLE features (
  user_id  VARBINARY(64)   NOT NULL,
  -- Arrival number of the last event that was folded.
  arrival  BIGINT UNSIGNED NOT NULL,
  features BLOB            NOT NULL,
  PRIMARY KEY (user_id)
) ENGINE = InnoDB;
