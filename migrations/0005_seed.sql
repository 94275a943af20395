INSERT INTO event (name, exclusive, exclusive_next) VALUES ('chicken', TRUE, TRUE);
INSERT INTO coupon (code, discount_percent, total, remaining, round, scope) VALUES
  ('A001', 100, 100, 100, 1, 0),
  ('B001', 50, 500, 500, 1, 0),
  ('C001', 10, 1000, 1000, 1, 0)
