"""What can be set, and whether it is right: schemas, checks, composition. Imports no torch."""
