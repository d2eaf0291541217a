package snaptest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
)

// certs are a CA and two certificates of it, as PEM files in one directory.
type certs struct {
	dir    string
	pool   *x509.CertPool
	client tls.Certificate
}

func newCerts(dir string) (*certs, error) {
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "snaptest CA"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	caKey, err := issue(dir, "ca", ca, ca, nil)
	if err != nil {
		return nil, err
	}
	for i, name := range []string{"server", "client"} {
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i) + 2),
			Subject:      pkix.Name{CommonName: name},
			NotBefore:    ca.NotBefore,
			NotAfter:     ca.NotAfter,
			KeyUsage:     x509.KeyUsageDigitalSignature,
			ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			DNSNames:     []string{"localhost"},
			IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		}
		if _, err := issue(dir, name, leaf, ca, caKey); err != nil {
			return nil, err
		}
	}
	c := &certs{dir: dir, pool: x509.NewCertPool()}
	caPEM, err := os.ReadFile(c.path("ca.crt"))
	if err != nil {
		return nil, err
	}
	c.pool.AppendCertsFromPEM(caPEM)
	c.client, err = tls.LoadX509KeyPair(c.path("client.crt"), c.path("client.key"))
	return c, err
}

// issue writes name.crt, signed by parent, and name.key. A nil parentKey makes
// the certificate sign itself.
func issue(dir, name string, cert, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if parentKey == nil {
		parentKey = key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, key.Public(), parentKey)
	if err != nil {
		return nil, fmt.Errorf("sign certificate %s: %w", name, err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	for file, block := range map[string]*pem.Block{
		name + ".crt": {Type: "CERTIFICATE", Bytes: der},
		name + ".key": {Type: "EC PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, err
		}
	}
	return key, nil
}

func (c *certs) path(file string) string { return filepath.Join(c.dir, file) }

func (c *certs) serverTLS(clientAuth bool) transport.TLSInfo {
	info := transport.TLSInfo{CertFile: c.path("server.crt"), KeyFile: c.path("server.key")}
	if clientAuth { // a trusted CA alone would already mean it
		info.ClientCertAuth = true
		info.TrustedCAFile = c.path("ca.crt")
	}
	return info
}

func (c *certs) clientTLS(clientCert bool) *tls.Config {
	cfg := &tls.Config{RootCAs: c.pool, MinVersion: tls.VersionTLS12}
	if clientCert {
		cfg.Certificates = []tls.Certificate{c.client}
	}
	return cfg
}
