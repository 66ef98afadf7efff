"""The page at `/`: a chat and a live view of the machine, from files of this package alone."""
