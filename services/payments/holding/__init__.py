"""Held payments: decisions of persons about money that matches no pledge or drive."""
