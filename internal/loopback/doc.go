// Package loopback has the small servers that self-test, demo, benchmarks and tests put
// around the milter: an Authentication Server and an SMTP server of this process, on free
// ports of 127.0.0.1, a port that refuses connections, and certificates.
package loopback
