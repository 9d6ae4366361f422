"""The monthly report for the oversight body, drawn from the ledger."""
