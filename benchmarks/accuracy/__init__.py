"""How well networks answer on data sets that ship in wheels, beside baselines run here and published figures."""
