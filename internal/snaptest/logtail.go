package snaptest

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logTail keeps the last warnings of a server that does not log otherwise. It prints
// what ends the process, because it could not be read afterwards.
type logTail struct {
	mu    sync.Mutex
	lines []string
}

const logTailLines = 20

func (t *logTail) logger() *zap.Logger {
	enc := zapcore.NewConsoleEncoder(zap.NewProductionEncoderConfig())
	return zap.New(zapcore.NewTee(
		zapcore.NewCore(enc, zapcore.AddSync(t), zapcore.WarnLevel),
		zapcore.NewCore(enc, zapcore.Lock(os.Stderr), zapcore.PanicLevel),
	))
}

// Write takes one log line.
func (t *logTail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, string(p))
	if extra := len(t.lines) - logTailLines; extra > 0 {
		t.lines = t.lines[extra:]
	}
	return len(p), nil
}

// explain adds the warnings to err.
func (t *logTail) explain(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == 0 {
		return err
	}
	return fmt.Errorf("%w\netcd's last warnings:\n%s", err, strings.Join(t.lines, ""))
}
