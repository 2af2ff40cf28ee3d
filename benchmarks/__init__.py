"""What zmesh costs, each time beside a baseline that is measured in the same run."""
