"""The console: a page in the browser that shows what the robot sees, and what prompts find."""
