"""Shows what this network serves to hivemind's DHT, in the form that Petals writes there.

A process of its own, `kwaainet bridge`: a relay neither needs it nor knows of it. docs/BRIDGE.md
says what others see through it, and what they cannot do.
"""
