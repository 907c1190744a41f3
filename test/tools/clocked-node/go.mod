module pillion.test/clocked-node

go 1.26.0
