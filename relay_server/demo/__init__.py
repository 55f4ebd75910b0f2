"""`kwaainet demo`: a whole network on one machine, in real browsers."""
