"""What operators and upstream systems do, behind the commands."""
