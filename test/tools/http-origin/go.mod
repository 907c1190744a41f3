module pillion.test/http-origin

go 1.26.0
