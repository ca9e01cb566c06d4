-- Every row of the log has an arrival number. Rows without one were imported or appended by earlier versions. Their order is
-- unknown: they get the next numbers, in order of time. Processes of earlier versions must not write afterwards.

-- Locks the row, as all writers do: no other transaction takes numbers meanwhile.
UPDATE ownership SET
  arrival_base = LAST_INSERT_ID(arrival_base + next_offset) - next_offset
    + (SELECT COUNT(*) FROM behaviour WHERE arrival = 0);

SET @arrival = LAST_INSERT_ID() - 1;
UPDATE behaviour SET arrival = (@arrival := @arrival + 1) WHERE arrival = 0 ORDER BY at_ms, user_id, item_id, kind;
