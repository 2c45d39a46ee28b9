-- What a feed's lists had and its proxies were good for, as JSON; '' when nothing is known.
ALTER TABLE feeds ADD COLUMN record TEXT NOT NULL DEFAULT '';
