"""Create a container or add a process to one: spawn init, drive the handshake, wait."""
