-- What is not sharded: the items and the item-neighbour model.
CREATE TABLE items (
  item_id VARBINARY(64) NOT NULL,
  PRIMARY KEY (item_id)
) ENGINE = InnoDB;

CREATE TABLE neighbour_models (
  version       BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  created_at_ms BIGINT          NOT NULL,
  -- Parameters and popular items, in the encoding of the crate `model`.
  header        MEDIUMBLOB      NOT NULL,
  -- Set in the same transaction as the last row: a replica never loads half a model.
  complete      BOOLEAN         NOT NULL DEFAULT FALSE,
  PRIMARY KEY (version)
) ENGINE = InnoDB;

CREATE TABLE item_neighbours (
  model_version BIGINT UNSIGNED NOT NULL,
  item_id       VARBINARY(64)   NOT NULL,
  neighbours    MEDIUMBLOB      NOT NULL,
  PRIMARY KEY (model_version, item_id),
  FOREIGN KEY (model_version) REFERENCES neighbour_models (version) ON DELETE CASCADE
) ENGINE = InnoDB;
