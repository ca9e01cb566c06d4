
worker-0€Ðê¶·3