"""Will this image come up on EC2? Looked inside without booting, then booted as EC2 would present itself."""
