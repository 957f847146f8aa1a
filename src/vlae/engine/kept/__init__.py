"""What a code kept, measured: changes and their price, spatial frequencies, contracts, and answers of people."""
