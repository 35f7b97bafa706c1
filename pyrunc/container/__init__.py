"""Operations on existing containers: start, kill, delete, update, measure, salvage."""
