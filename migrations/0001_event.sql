-- The campaign. Exactly one row exists; replicas poll it for the generation.
CREATE TABLE event (
  id             TINYINT UNSIGNED NOT NULL DEFAULT 1 COMMENT 'Always 1: exactly one event exists.',
  name           VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'What people call the campaign.',
  round          INT UNSIGNED NOT NULL DEFAULT 1 COMMENT 'Grows by one with every reset; work for an older round is refused.',
  exclusive      BOOLEAN NOT NULL COMMENT 'The rule of the current round. TRUE: one coupon per user over the whole event; FALSE: one per code.',
  exclusive_next BOOLEAN NOT NULL COMMENT 'The rule the next reset copies into exclusive.',
  opens_at       DATETIME(6) NULL COMMENT 'UTC. Nothing is issued before. NULL: open since ever.',
  closes_at      DATETIME(6) NULL COMMENT 'UTC. Nothing is issued from here on. NULL: never closes.',
  generation     BIGINT UNSIGNED NOT NULL DEFAULT 1 COMMENT 'Grows by one with every administrative change; what a replica remembers belongs to one generation.',
  PRIMARY KEY (id),
  CONSTRAINT event_single CHECK (id = 1)
) ENGINE = InnoDB COMMENT = 'The campaign: its rule, its window, its round.'
