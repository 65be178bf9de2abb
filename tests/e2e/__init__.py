"""The whole product over real processes and real HTTP. Nothing is faked; every target is on loopback."""
