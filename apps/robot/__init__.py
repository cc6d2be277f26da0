"""The robot's side of the socket: a client that asks for chunks, and the closed loop that acts on them."""
