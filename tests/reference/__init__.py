"""Independent numpy implementations that tests compare the library with."""
