"""What a proof is made of: arms, held-out samples, trainings, intervals, words."""
