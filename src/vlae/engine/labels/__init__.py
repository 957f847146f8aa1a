"""What a few labels are worth: classifiers of codes, their curve, and what to label next."""
