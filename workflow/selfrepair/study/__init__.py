"""What a study is: its config, and what it would cost."""
