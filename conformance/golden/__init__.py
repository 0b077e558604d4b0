"""The golden reference: each rule written again from its paper, on plain numbers, sharing nothing with `xopt.rules`."""
