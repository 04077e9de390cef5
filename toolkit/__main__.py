from toolkit.commands.main import main

main()
