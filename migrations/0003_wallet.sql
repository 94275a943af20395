-- The issued coupons. There is no foreign key to coupon: a child insert would take a shared lock on the hot row.
CREATE TABLE wallet (
  round      INT UNSIGNED NOT NULL COMMENT 'The round the coupon was issued in.',
  scope      SMALLINT UNSIGNED NOT NULL COMMENT 'coupon.scope at that time: 0 in an exclusive round, else the coupon''s id.',
  user_id    VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'The holder, as the caller named it; not authenticated here.',
  coupon_id  SMALLINT UNSIGNED NOT NULL COMMENT 'coupon.id.',
  serial     INT UNSIGNED NULL COMMENT '1, 2, 3 ... per coupon and round without gaps. NULL only under the unlocked strategy.',
  request_id BINARY(16) NOT NULL COMMENT 'The request that got it: the same request asked again gets the same entry.',
  arrived_ms BIGINT UNSIGNED NULL COMMENT 'Milliseconds since 1970 when the request reached nginx; NULL without nginx.',
  issued_at  DATETIME(6) NOT NULL COMMENT 'UTC, the database''s clock.',
  PRIMARY KEY (round, scope, user_id),
  UNIQUE KEY wallet_serial (coupon_id, round, serial)
) ENGINE = InnoDB COMMENT = 'Who holds what.'
