"""Other models of the same task, trained on the same windows at the same cost, for MATEY to be measured against."""
