-- What minutes that were deleted for their age had counted, in one row: the totals of all time still hold it.
CREATE TABLE deleted_minutes (
    only_row      INTEGER PRIMARY KEY CHECK (only_row = 1),
    success_count INTEGER NOT NULL,
    failure_count INTEGER NOT NULL
) STRICT;
INSERT INTO deleted_minutes VALUES (1, 0, 0);
