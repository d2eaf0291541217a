package interop_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"etcd.example/snapshot/internal/interop"
	"etcd.example/snapshot/internal/interop/etcd"
)

// TestTLS saves from a server that requires client certificates, and restores a
// cluster whose members have host names and require certificates of each other too.
func TestTLS(t *testing.T) {
	flags, client := certificates(t)
	eachRelease(t, func(t *testing.T, r *etcd.Release) {
		o := originOf(t, r)
		c := cluster{
			scheme: "https", host: "localhost",
			user: interop.Root, pass: interop.RootPassword,
			flags: flags, tls: client,
		}
		m := c.boot(t, r, o.plain, 1)[0]

		strangers := m.ClientConfig()
		strangers.TLS = &tls.Config{RootCAs: client.RootCAs}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		path := filepath.Join(t.TempDir(), "tls.db")
		require.Error(t, lib.Save(ctx, strangers, path))
		require.NoFileExists(t, path)

		require.NoError(t, lib.Save(soon(t), m.ClientConfig(), path))
		_, err := lib.Verify(soon(t), path)
		require.NoError(t, err)
		members := c.boot(t, r, path, 3)
		for _, m := range members {
			same(t, o, m, 0)
		}
		require.Contains(t, identity(t, dial(t, members[0])).Members[0].PeerURLs[0], "https://localhost:")
		results.note(r, factTLS, "yes")
	})
}

// certificates creates an authority, a certificate for the servers and one for
// clients. It returns the servers' flags and the clients' configuration.
func certificates(t *testing.T) (flags []string, client *tls.Config) {
	t.Helper()
	dir := t.TempDir()
	caKey, ca := certificate(t, "authority", nil, nil)
	serverKey, server := certificate(t, "server", caKey, ca)
	clientKey, clientCert := certificate(t, "client", caKey, ca)

	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		block := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
		require.NoError(t, os.WriteFile(path, block, 0o600))
		return path
	}
	der, err := x509.MarshalECPrivateKey(serverKey)
	require.NoError(t, err)
	caFile := write("ca.pem", "CERTIFICATE", ca.Raw)
	certFile := write("server.pem", "CERTIFICATE", server.Raw)
	keyFile := write("server-key.pem", "EC PRIVATE KEY", der)
	for _, kind := range []string{"", "peer-"} {
		flags = append(flags,
			"--"+kind+"trusted-ca-file", caFile,
			"--"+kind+"cert-file", certFile,
			"--"+kind+"key-file", keyFile,
			"--"+kind+"client-cert-auth",
		)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return flags, &tls.Config{
		RootCAs:      pool,
		Certificates: []tls.Certificate{{Certificate: [][]byte{clientCert.Raw}, PrivateKey: clientKey}},
	}
}

// certificate creates a certificate, signed by the authority or, without one,
// self-signed.
func certificate(t *testing.T, name string, caKey *ecdsa.PrivateKey, ca *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{name}},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		IsCA:                  ca == nil,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if ca == nil {
		ca, caKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return key, cert
}
