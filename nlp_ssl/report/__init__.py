"""What a run did, as one HTML page and one model card, from the files in its folder alone."""
