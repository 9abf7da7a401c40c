"""What stands for Xen between a system and its virtualization layer: event channels, and xenbus over a UNIX
socket.
"""
