"""What the data of several networks are found and made with."""
