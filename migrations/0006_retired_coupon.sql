-- A coupon that was retired keeps its row and so its id, which wallet rows of earlier rounds name; whoever makes its code again
-- gets the row back. Without a code no statement that asks for one finds it.
ALTER TABLE coupon
  MODIFY COLUMN code VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'The name in the API and in the lock key; NULL when the coupon is retired.',
  ADD COLUMN retired_code VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NULL COMMENT 'The name that a retired coupon had; NULL while it has a code.',
  ADD UNIQUE KEY coupon_retired_code (retired_code)
