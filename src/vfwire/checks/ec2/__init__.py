"""Can this EC2 instance type, AMI or instance do enhanced networking, does it, and how is it turned on?"""
