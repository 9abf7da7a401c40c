"""A local EC2 and Systems Manager: moto as a server, and on top of it the rules of AWS's that moto lacks."""
