-- A kind of coupon. One row lock on it decides everything about an issue: that is why the round, the scope and the
-- event's window are copied here by every administrative change.
CREATE TABLE coupon (
  id               SMALLINT UNSIGNED NOT NULL AUTO_INCREMENT COMMENT 'Internal key; never leaves the database.',
  code             VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'The name in the API and in the lock key.',
  discount_percent TINYINT UNSIGNED NOT NULL COMMENT '1 to 100.',
  total            INT UNSIGNED NOT NULL COMMENT 'Pieces in this round, 0 to 1,000,000.',
  remaining        INT UNSIGNED NOT NULL COMMENT 'Pieces not issued yet. UNSIGNED: a decrement below zero is an error, not a number.',
  next_serial      INT UNSIGNED NOT NULL DEFAULT 1 COMMENT 'The serial the next issue gets; 1 at the start of a round.',
  version          BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'Counts writes of the optimistic strategy.',
  round            INT UNSIGNED NOT NULL COMMENT 'Copy of event.round, so that the row lock covers the check.',
  scope            SMALLINT UNSIGNED NOT NULL COMMENT 'Within what a user may hold one coupon: 0 the whole event (exclusive round), else this coupon''s id.',
  opens_at         DATETIME(6) NULL COMMENT 'UTC. The coupon''s own window; NULL: no bound.',
  closes_at        DATETIME(6) NULL COMMENT 'UTC. The coupon''s own window; NULL: no bound.',
  event_opens_at   DATETIME(6) NULL COMMENT 'Copy of event.opens_at.',
  event_closes_at  DATETIME(6) NULL COMMENT 'Copy of event.closes_at.',
  PRIMARY KEY (id),
  UNIQUE KEY coupon_code (code),
  CONSTRAINT coupon_discount CHECK (discount_percent BETWEEN 1 AND 100),
  CONSTRAINT coupon_stock CHECK (remaining <= total AND total <= 1000000)
) ENGINE = InnoDB COMMENT = 'A kind of coupon and its stock.'
