package main

import (
	"fmt"
	"os"
	"reflect"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/milter"
)

// reload is what SIGHUP does: it reads the configuration and the files that it names again,
// and replaces the engine. Messages that have begun end under the previous engine. A
// configuration with a fault is logged and changes nothing.
func (d *service) reload() {
	loaded, err := config.Load(d.path, os.Environ())
	if err == nil {
		err = d.acceptable(loaded)
	}
	if err == nil {
		var engine *milter.Engine
		if engine, err = d.engine(loaded); err == nil {
			d.server.Swap(engine)
		}
	}
	if err != nil {
		d.log.Error("configuration not reloaded, keeping the previous one", "error", program.OneLine(err))
		return
	}
	old, now := d.config, loaded.Config
	if !reflect.DeepEqual(old.Listen, now.Listen) || old.Socket != now.Socket || old.Log.Format != now.Log.Format ||
		stateDir(old.Notify) != stateDir(now.Notify) {
		d.log.Warn("listen, socket, log.format and notify.state_dir take effect at the next start")
	}
	d.put(loaded)
}

// acceptable returns why a configuration that is right in itself may not replace the one in force.
func (d *service) acceptable(loaded *config.Loaded) error {
	if loaded.CutOff(d.content) {
		return fmt.Errorf("%s: %w", loaded.Path, config.ErrCutOff)
	}
	for _, addr := range d.sockets {
		if fault, ok := loaded.InetFault(addr.Network(), addr.String()); ok {
			return fault
		}
	}
	return nil
}
