-- Settles a whole batch for one code in one round trip and one transaction.
--
-- p_orders is a JSON array of strings in the order in which serials are given. Each string is the request id (22 characters
-- of base64 without padding), the arrival in milliseconds after p_since (5 digits, 99999 when unknown) and the user id (the
-- rest); p_count is its length. Short, because the whole call has to fit into one TLS record.
--
-- The first result set is one row: what the locked coupon row said and how many got a coupon. The second holds the
-- wallet entries of the batch's users and comes only when some order did not get the coupon it asked for.
CREATE PROCEDURE issue_batch(
  IN p_round INT UNSIGNED,
  IN p_code VARCHAR(36) CHARACTER SET ascii,
  IN p_since BIGINT UNSIGNED,
  IN p_orders LONGTEXT CHARACTER SET ascii,
  IN p_count INT UNSIGNED
)
  MODIFIES SQL DATA
  SQL SECURITY INVOKER
  COMMENT 'Issues one coupon of p_code to each order of the batch, as far as rule and stock allow.'
BEGIN
  DECLARE v_id, v_scope SMALLINT UNSIGNED DEFAULT NULL;
  DECLARE v_round, v_remaining, v_serial, v_issued INT UNSIGNED DEFAULT 0;
  DECLARE v_opens_at, v_closes_at, v_now DATETIME(6) DEFAULT NULL;
  DECLARE v_repaired, v_open BOOLEAN DEFAULT FALSE;
  DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END;

  START TRANSACTION;
  SELECT id, round, scope, remaining, next_serial,
         GREATEST(COALESCE(opens_at, event_opens_at), COALESCE(event_opens_at, opens_at)),
         LEAST(COALESCE(closes_at, event_closes_at), COALESCE(event_closes_at, closes_at))
    INTO v_id, v_round, v_scope, v_remaining, v_serial, v_opens_at, v_closes_at
    FROM coupon WHERE code = p_code FOR UPDATE;
  -- The clock is read after the row was locked: the wait for it may have crossed the opening or the closing.
  SET v_now = UTC_TIMESTAMP(6);
  SET v_open = (v_opens_at IS NULL OR v_now >= v_opens_at) AND (v_closes_at IS NULL OR v_now < v_closes_at);

  IF v_id IS NOT NULL AND v_round = p_round AND v_open AND v_remaining > 0 THEN
    SET v_issued = LEAST(v_remaining, p_count);
    BEGIN
      DECLARE EXIT HANDLER FOR 1062 SET v_repaired = TRUE;
      -- In user order, so that batches of two codes with common users meet their rows in the same order.
      INSERT INTO wallet (round, scope, user_id, coupon_id, serial, request_id, arrived_ms, issued_at)
        SELECT v_round, v_scope, SUBSTRING(j.o, 28), v_id, v_serial + j.ord - 1,
               FROM_BASE64(CONCAT(LEFT(j.o, 22), '==')), p_since + NULLIF(CAST(SUBSTRING(j.o, 23, 5) AS UNSIGNED), 99999), v_now
          FROM JSON_TABLE(p_orders, '$[*]' COLUMNS (
                 ord FOR ORDINALITY,
                 o VARCHAR(255) CHARACTER SET utf8mb4 PATH '$')) AS j
         WHERE j.ord <= v_issued
         ORDER BY SUBSTRING(j.o, 28);
    END;
    IF v_repaired THEN
      -- Somebody holds a coupon already or asks twice in this batch: the first order of each user without one counts.
      INSERT INTO wallet (round, scope, user_id, coupon_id, serial, request_id, arrived_ms, issued_at)
        SELECT v_round, v_scope, f.u, v_id, v_serial + f.place - 1,
               FROM_BASE64(CONCAT(LEFT(f.o, 22), '==')), p_since + NULLIF(CAST(SUBSTRING(f.o, 23, 5) AS UNSIGNED), 99999), v_now
          FROM (SELECT d.u, d.o, ROW_NUMBER() OVER (ORDER BY d.ord) AS place
                  FROM (SELECT j.ord, j.o, SUBSTRING(j.o, 28) AS u,
                               ROW_NUMBER() OVER (PARTITION BY SUBSTRING(j.o, 28) COLLATE utf8mb4_bin ORDER BY j.ord) AS nth
                          FROM JSON_TABLE(p_orders, '$[*]' COLUMNS (
                                 ord FOR ORDINALITY,
                                 o VARCHAR(255) CHARACTER SET utf8mb4 PATH '$')) AS j) AS d
                  LEFT JOIN wallet AS w
                    ON w.round = v_round AND w.scope = v_scope AND w.user_id = CONVERT(d.u USING ascii) COLLATE ascii_bin
                 WHERE d.nth = 1 AND w.user_id IS NULL) AS f
         WHERE f.place <= v_remaining
         ORDER BY f.u;
      SET v_issued = ROW_COUNT();
    END IF;
    IF v_issued > 0 THEN
      UPDATE coupon SET remaining = remaining - v_issued, next_serial = next_serial + v_issued WHERE id = v_id;
    END IF;
  END IF;
  COMMIT;

  SELECT CAST(v_id IS NOT NULL AS UNSIGNED) AS known,
         CAST(v_round AS UNSIGNED) AS round,
         CAST(v_open AS UNSIGNED) AS is_open,
         CAST(v_serial AS UNSIGNED) AS first_serial,
         CAST(v_issued AS UNSIGNED) AS issued,
         CAST(v_repaired AS UNSIGNED) AS repaired,
         CAST(v_remaining - v_issued AS UNSIGNED) AS remaining,
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', v_now) AS issued_at,
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', v_opens_at) AS opens_at;

  IF v_round = p_round AND (v_repaired OR v_issued < p_count) THEN
    SELECT w.user_id, held.code, CAST(w.serial AS UNSIGNED) AS serial, w.request_id,
           TIMESTAMPDIFF(MICROSECOND, '1970-01-01', w.issued_at) AS issued_at, w.round
      FROM JSON_TABLE(p_orders, '$[*]' COLUMNS (o VARCHAR(255) CHARACTER SET utf8mb4 PATH '$')) AS j
      JOIN wallet AS w
        ON w.round = v_round AND w.scope = v_scope AND w.user_id = CONVERT(SUBSTRING(j.o, 28) USING ascii) COLLATE ascii_bin
      JOIN coupon AS held ON held.id = w.coupon_id;
  END IF;
END
